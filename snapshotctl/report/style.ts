/** The page's one style sheet. Light and dark are the reader's choice; on paper it is light, and what is folded is open. */
export const STYLE = `
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--line:#dfe3e8;--ink:#1a2029;--dim:#5d6875;--track:#eef1f4;
--accent:#3563c9;--pause:#c2571a;--rate:#0f8a7e;--limit:#b3261e;--good:#1d7a3e;--goodback:#e2f3e7;
--p1:#3563c9;--p2:#0f8a7e;--p3:#a66d00;--p4:#8250b5;--p0:#c3cad3;
--anonymous:#3563c9;--heap:#0f8a7e;--stack:#a66d00;--file:#8250b5;--shared:#b83a72;--device:#4f7d1f;--special:#7b8592}
@media (prefers-color-scheme:dark){:root{--page:#12161c;--card:#1a2028;--line:#2d3540;--ink:#e4e9ef;--dim:#98a4b3;--track:#232b35;
--accent:#7ba4ff;--pause:#f0935a;--rate:#3cc4b5;--limit:#ff8a80;--good:#7bd69a;--goodback:#17331f;
--p1:#7ba4ff;--p2:#3cc4b5;--p3:#e3ad45;--p4:#bd94ea;--p0:#4a5563;
--anonymous:#7ba4ff;--heap:#3cc4b5;--stack:#e3ad45;--file:#bd94ea;--shared:#f07fae;--device:#9ccc65;--special:#8b96a4}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 20px 48px}
h1{font-size:26px;line-height:1.25;margin:0;overflow-wrap:anywhere}
h2{font-size:17px;margin:0 0 4px}
h3{font-size:14px;margin:0 0 6px;font-weight:600;display:flex;flex-wrap:wrap;gap:2px 10px;align-items:baseline;overflow-wrap:anywhere}
p{margin:0 0 12px}
header{margin-bottom:20px}
.sub{color:var(--dim);margin:4px 0 0;overflow-wrap:anywhere}
.pill{display:inline-block;font-size:13px;font-weight:600;padding:2px 10px;border-radius:999px;background:var(--goodback);color:var(--good);vertical-align:3px;margin-left:8px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:0 0 16px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px}
.tile .label{color:var(--dim);font-size:13px}
.tile .value{font-size:20px;font-weight:650;line-height:1.4;white-space:nowrap;font-variant-numeric:tabular-nums}
.tile .more{color:var(--dim);font-size:13px}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px 18px;margin:0 0 16px}
.lead{color:var(--dim);font-size:14px}
.note,.source{color:var(--dim);font-size:13px;margin:10px 0 0}
.source{border-top:1px solid var(--line);padding-top:8px}
.dim{color:var(--dim);font-weight:400}
.chart{display:grid;grid-template-columns:max-content 1fr max-content;gap:4px 12px;align-items:center;font-size:14px}
.row{display:contents}
.row .name{white-space:nowrap}
.row .amount .dim{display:inline-block;min-width:3em}
.axis .draw svg{background:none}
.row .amount{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.draw svg,.stack svg{display:block;width:100%;height:16px;background:var(--track);border-radius:3px}
.stack svg{height:26px;margin-bottom:10px;border-radius:5px}
.map{margin-top:16px}
.map>svg{display:block;width:100%;height:28px;background:var(--track);border-radius:4px}
.map .amount{color:var(--dim);font-weight:400;margin-left:auto;font-size:13px}
rect.paused{fill:var(--pause)}rect.running{fill:var(--accent)}rect.rate{fill:var(--rate)}
line.grid{stroke:var(--line)}line.tick{stroke:var(--dim)}line.limit{stroke:var(--limit);stroke-width:2}
.limit-name{color:var(--limit)}
rect.p0{fill:var(--p0)}rect.p1{fill:var(--p1)}rect.p2{fill:var(--p2)}rect.p3{fill:var(--p3)}rect.p4{fill:var(--p4)}
rect.k-anonymous{fill:var(--anonymous)}rect.k-heap{fill:var(--heap)}rect.k-stack{fill:var(--stack)}rect.k-file{fill:var(--file)}
rect.k-shared{fill:var(--shared)}rect.k-device{fill:var(--device)}rect.k-special{fill:var(--special)}
rect.mapped{opacity:.28}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;margin:0;padding:0;font-size:14px}
.key{width:11px;height:11px;margin-right:6px;vertical-align:-1px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:5px 14px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--dim);font-weight:600;font-size:13px;white-space:nowrap}
tr:last-child td{border-bottom:0}
.num{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.mono,.path{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;font-size:13px}
.mono{white-space:nowrap}
.path{overflow-wrap:anywhere;min-width:160px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:0;font-size:14px;align-content:start}
dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(320px,1fr));gap:8px 32px}
details{margin-top:10px;font-size:14px}
summary{cursor:pointer;color:var(--accent)}
details[open] summary{margin-bottom:6px}
footer{color:var(--dim);font-size:13px}
@media (max-width:640px){
main{padding:18px 12px 32px}h1{font-size:21px}section{padding:14px 12px}
.chart{grid-template-columns:1fr max-content;gap:0 10px}
.row .name{padding-top:6px}.row .draw{grid-column:1/-1;grid-row:auto;order:0}
.row{display:grid;grid-template-columns:1fr max-content;grid-column:1/-1;gap:2px 10px}
.row .amount{grid-row:1;grid-column:2;padding-top:6px}
.chart.wide .row .amount .dim{display:none}
dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:8px}.columns{grid-template-columns:1fr}
.map .amount{margin-left:0;width:100%}}
@media print{
:root{color-scheme:light;--page:#fff;--card:#fff;--line:#ccc;--ink:#000;--dim:#444;--track:#eee;--accent:#3563c9;--pause:#c2571a;--rate:#0f8a7e;
--limit:#b3261e;--good:#1d7a3e;--goodback:#fff;--p1:#3563c9;--p2:#0f8a7e;--p3:#a66d00;--p4:#8250b5;--p0:#c3cad3;
--anonymous:#3563c9;--heap:#0f8a7e;--stack:#a66d00;--file:#8250b5;--shared:#b83a72;--device:#4f7d1f;--special:#7b8592}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
main{max-width:none;padding:0}section,.tile,.map{break-inside:avoid}section.long{break-inside:auto}
details::details-content{content-visibility:visible;height:auto}
.scroll{overflow:visible}body{font-size:12px}}
`;
