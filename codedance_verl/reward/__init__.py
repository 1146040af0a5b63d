"""What a rollout is worth: the terms of each trajectory (`terms`), their way through verl (`encoding`), and the
advantage estimator that gives every sampled token its credit (`advantage`)."""
