"""Suites: notebooks with parameters, run as one batch, and the page of them."""
