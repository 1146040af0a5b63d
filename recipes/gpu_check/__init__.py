"""The check of a machine with GPUs before a long run (`make gpu-check`)."""
