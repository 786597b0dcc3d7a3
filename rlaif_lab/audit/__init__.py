"""`rlaif-audit judge=...`: how good is a judge, and what sways it?

bank -> verdicts in both orders -> measures -> terminal table, audit.json, audit.html, verdicts.csv. The same measures
run in every round of a loop (in_loop.py).
"""
