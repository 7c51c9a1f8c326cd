"""The report of a study: one HTML page with everything in it.

- ``page``: puts the page together; with ``report.html.j2``, ``report.css`` and ``report.js``.
- ``page_data``: what it shows of trials, as JSON values, once for all panels.
- ``panels``: the panels, a module for each topic; a new one is a function and its entry there.
- ``vega``: marks, axes and scales in Vega-Lite, which panels are made of.
"""
