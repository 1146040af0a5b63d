"""What long runs need around verl's trainers: checkpoints that survive a kill, stops that save, a watch over steps."""
