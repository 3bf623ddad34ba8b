"""Decode: network outputs to results, one function per output layout."""
