"""Content of the sandbox image: Dockerfile, locked libraries, the interpreter program. Imports nothing of the host."""
