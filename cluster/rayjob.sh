#!/bin/sh
# What the job of kuberay-rayjob.yaml runs, with the arguments of the training. A file of its own, because KubeRay puts
# `entrypoint` as it stands into the shell line that submits the job: what followed an && there would run in the
# submitter's pod.
set -e

# The cluster is as old as the job and so are its engines: none of them has the image yet. Built in the engine of one of
# the pods with this resource, and loaded into the others through Ray; pods that are replaced later lack it until the job
# is started again.
python -m codedance_verl.cli cluster prepare --resource sandbox

exec python -m codedance_verl.train "$@"
