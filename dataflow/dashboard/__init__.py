"""The live page: readings, expected bands, and the anomalies that the flow found.

feed       reads the topics, or files, into a fleet: one thread for all browsers
present    which time the page shows: the present, or that of old readings
trouble    what is wrong with an instance now
overview   all instances: a sentence, a table, lanes
view       what one browser shows of the table
instance   one instance: charts
page       what both pages share: the template, the status line, light and dark
server     serves the pages
"""
