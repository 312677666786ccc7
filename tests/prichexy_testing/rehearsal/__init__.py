"""Rehearses the Dockerfiles and the compose file of docker/ without a Docker engine.

``dockerfile`` and ``recipe`` read a Dockerfile (pure), ``context`` says what the build context
holds, ``base`` makes the base image by debootstrap, ``build`` runs the steps in it, ``compose``
reads the compose file (pure) and ``start`` runs what came out, each service by its own entry
point, as its own user, until its own health check passes. Each process runs in Linux namespaces of
its own, so nothing stays mounted or running, whatever happens to the rehearsal itself.

It is a test tool, not a container engine: what it does not know, it refuses.
"""
