"""The model store of a cell: versions named by their hash, switched by a link, mended from its peer.

    <store>/<model>/versions/<version>/…      the files, and manifest.json with size and SHA-256 of each
    <store>/<model>/current, previous         links to one version each

What is below `versions/` never changes: a damaged file is replaced by a whole one under its name.
"""
