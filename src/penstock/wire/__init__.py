"""Bytes and events, one file a transport. No IO, no clock; one transport does not know another."""
