"""The live page: readings, expected bands, and the anomalies that the flow found.

feed       reads the topics, or files, into a fleet: one thread for all browsers
overview   all instances: a table
instance   one instance: charts
page       what both pages share: the template, the status line, light and dark
server     serves the pages
"""
