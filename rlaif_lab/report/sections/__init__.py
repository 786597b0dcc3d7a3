"""The sections of the page. Each is a function from a ``View`` to HTML, "" where there is nothing to show."""
