"""Trains, attacks and evaluates the networks, and makes the bundle that workers load.

``data``      what a set of radiographs is: readers, splits, pairs, and the cache on disk
``stages``    one module a network that is trained: verifier, classifier, generator
``attacks``   the attacker ladder: one module a rung
``measures``  AUC, intervals over patients, retrieval
``report``    from run records to tables, plots and a page
``commands``  what the command line takes
"""
