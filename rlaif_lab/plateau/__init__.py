"""When the loop stopped improving, and why: the online detector, and what is fitted to finished runs."""
