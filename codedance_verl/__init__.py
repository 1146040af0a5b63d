"""CodeDance on verl: reinforcement learning of vision-language models that reason by writing and running code."""

__version__ = "0.1.0"
