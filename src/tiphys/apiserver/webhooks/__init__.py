"""Webhooks: which ones a write concerns, what they are asked, what becomes of their answers, and how they are reached.

In come a write's admission attributes and the two kinds of webhook configuration, from the watch cache; out come a
changed object, a refusal, warnings and audit annotations. `client.py` knows nothing of admission: conversion webhooks are
reached through it too.
"""
