"""Code that may hang, crash or eat memory, run in a process of its own and called with JSON: formulas, and the
functions of the user's own."""
