"""Data sets in bounded memory: pieces of files, image store, converters of published sets, `codedance data`."""
