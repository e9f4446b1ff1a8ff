"""The head of a paper's figures about the dataset `mini`; a test adds other datasets, the protocol and the tables."""

MINI_PAPER = """
title: A paper
citation: "Nobody, 2026"
figures: the test
datasets:
  mini:
    title: ten images
    formats: [folder]
    get: hemalum import folder SRC data/mini
    split: {by: image, counts: [60, 20, 20], tag: stated, note: copies on both sides}
"""
