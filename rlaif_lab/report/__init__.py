"""`rlaif-report DIR`: run folders -> curves, tables, figures and one self-contained HTML page.

load -> arms -> tables, figures -> page. A further section is one function more in page.py (and a file for what it
computes).
"""
