"""The live page: what the instances do, what is expected of them, and what the flow found.

feed       reads the topics, or files, into a fleet: one thread for all who look
overview   all instances: a table
instance   one instance: charts
page       what both pages share: the look, the status line, light and dark
server     serves them
"""
