"""Polls CPU of EC2 instances from CloudWatch's API, where there is no metric stream."""
