"""The HTTP surface, one file for each thing a request can want. No rules of the log here."""
