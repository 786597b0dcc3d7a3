"""What a spreadsheet would do with a text in a CSV file."""

from __future__ import annotations

FORMULA = ("=", "+", "-", "@", "\t", "\r", "|", "%")
"""How texts begin that a spreadsheet runs as a formula when it opens the file (OWASP, "CSV injection")."""
