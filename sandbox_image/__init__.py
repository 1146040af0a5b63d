"""What runs inside the sandbox: Dockerfile, locked libraries, the interpreter program. Imports nothing of the host."""
