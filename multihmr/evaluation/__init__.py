"""Evaluation: metrics, benchmarks, the evaluator, reports."""
