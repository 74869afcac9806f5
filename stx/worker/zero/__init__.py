"""All contact with DeepSpeed's internals, for ZeRO 0, 1, 2 and 3 and every precision.

engine.py     the configuration; `make` gives the engine around a module, and this rank's Partition of its state
layouts.py    where each stage of DeepSpeed keeps the fp32 state of a rank, as one flat tensor: one class each
partition.py  what the loop and checkpoints do with it, whatever the layout

fp32 weights must be in the module BEFORE `make`: masters that are set later leave the working weights stale.
"""
