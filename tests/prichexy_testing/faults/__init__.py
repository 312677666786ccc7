"""Faults of a gateway of real processes, and what has to hold after each of them.

``site`` runs the processes, ``front`` stands between them, ``hosts`` puts workers on hosts of their
own, ``kinds`` has the faults, ``invariants`` what has to hold, ``gathered`` collects what that is
judged by, ``soak`` plays many faults by chance. The programs ``worker_program``, ``plugin_program``
and ``poisoned_child`` take the places of the product's own; each says what is different in it.
"""
