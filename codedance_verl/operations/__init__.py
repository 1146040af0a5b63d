"""Operations in model-written code: found in its syntax tree, followed from the image to what is shown, never run."""
