"""The commands are tried on the same run folders as the functions behind them."""

from export.conftest import addition_run, odd_run

__all__ = ["addition_run", "odd_run"]
