"""People in the loop: a queue of comparisons, a page on which people label them, and what their labels say.

A judge puts comparisons into the queue, people label them on the page (`rlaif-annotate`), the judge reads the labels
back.
"""
