# What there is to run; each target is a script of the same name.
.PHONY: server test soak

server:
	script/server

test:
	script/test

# 2,000 studies, 4 workers and faults by chance, for about an hour; see docs/faults.md.
# Others: make soak SOAK="--studies 200 --minutes 10 --seed 7 figures"
SOAK ?= --studies 2000 --workers 4 figures
soak:
	script/soak $(SOAK)
