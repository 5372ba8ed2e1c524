"""The look of report.html: one style sheet, light and dark, nothing fetched."""

CSS = """
:root { color-scheme: light dark; --paper: #f6f7f9; --card: #ffffff; --ink: #1f2430; --faint: #667085;
  --line: #e4e7ec; --accent: #2f6fde; --code: #f2f4f7; }
@media (prefers-color-scheme: dark) { :root { --paper: #12151b; --card: #1b2029; --ink: #e6e9ef; --faint: #98a2b3;
  --line: #2c333f; --accent: #7aa7ff; --code: #232a35; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
header h1 { margin: 0 0 4px; font-size: 28px; letter-spacing: -0.01em; }
header p { margin: 0; color: var(--faint); }
nav { margin: 16px 0 8px; display: flex; flex-wrap: wrap; gap: 6px 16px; }
nav a { color: var(--accent); text-decoration: none; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px 24px;
  margin: 20px 0; }
h2 { margin: 0 0 12px; font-size: 19px; }
h3 { margin: 20px 0 8px; font-size: 16px; }
figure { margin: 12px 0 20px; }
figcaption { color: var(--faint); font-size: 13px; margin-bottom: 6px; }
figure.picture { overflow-x: auto; }
figure.picture img { max-width: 100%; height: auto; background: #fff; border-radius: 8px; padding: 6px;
  border: 1px solid var(--line); }
figure.picture figcaption { margin: 6px 0 0; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 4px 16px; }
figure.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; }
th, td { padding: 6px 14px 6px 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--faint); font-size: 13px; }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; }
table.facts td { white-space: pre-line; overflow-wrap: anywhere; }
table.facts td:first-child { color: var(--faint); white-space: nowrap; }
details > summary { cursor: pointer; font-weight: 600; padding: 4px 0; }
pre { background: var(--code); border-radius: 8px; padding: 12px 14px; overflow-x: auto; font-size: 13px;
  margin: 8px 0; }
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""
