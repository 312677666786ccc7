"""The model store: the bundles that were in use or may be, and which one is. Standard library only.

``store``         promote, roll back, offer: what is done with versions
``history``       who put which version to use, when and why
``bundles``       what a bundle says of itself, read without loading it
``bundle_files``  which files are a bundle, their one digest, a copy of them
``errors``        what is raised

The command line changes a store and so does the plugin; a worker only follows its link.
"""
