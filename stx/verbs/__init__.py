"""The bodies of the command line's verbs. stx/cli.py declares them and imports one of these modules when its verb
runs.
"""
