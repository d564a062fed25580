"""Metrics, traces, a dashboard and alerts."""
