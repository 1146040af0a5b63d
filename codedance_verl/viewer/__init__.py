"""`codedance view`: a web page over the trajectories of runs, and the same as one file."""
