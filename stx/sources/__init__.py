"""Where a user's own images come from: one file per form of source, stx/sources/NAME.py, with

    open_source(path, class_names) -> ImageSource

It lists what is there (labels, class names, what an error calls image i) and reads the encoded bytes of one image. No
pixel is decoded here and no torch is needed: the plan counts with the same code that the worker reads with.
"""
