// The pages that people see: the most-hit keys, and a key alone. A client can invent
// any key, so each text is escaped where it becomes HTML.

// Markup is text that is HTML already. Only html makes it.
class Markup {
	constructor(text) { this.text = text; }
}

// html makes Markup of a template. It escapes each value that is not Markup.
const html = (parts, ...values) => new Markup(String.raw({ raw: parts }, ...values.map(escape)));

function escape(value) {
	if (value instanceof Markup) return value.text;
	if (Array.isArray(value)) return value.map(escape).join('');
	return String(value).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

// visible replaces the characters that no font shows and those that change the
// direction of the text around them.
const visible = (text) => text.replace(/[\p{Cc}\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/gu,
	(c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);

// short is the start of a key, for a table. A key can have 20,000 characters.
function short(key) {
	const characters = [...key.slice(0, 400)];
	return visible(characters.slice(0, 100).join('')) + (characters.length > 100 ? '…' : '');
}

const number = (count) => BigInt(count).toLocaleString('en');

// plot draws the hits of each day. The viewBox is stretched to the width of the page,
// so that the texts stand outside of it.
function plot(days) {
	const most = Math.max(1, ...days.map(({ count }) => Number(count)));
	const bars = days.map(({ day, count }, i) => {
		const height = 100 * Number(count) / most;
		return html`<rect x="${i + 0.05}" y="${100 - height}" width="0.9" height="${height}"
			><title>${day}: ${number(count)}</title></rect>`;
	});
	return html`<figure>
<svg viewBox="0 0 ${days.length} 100" preserveAspectRatio="none" role="img" aria-label="Hits per day">${bars}</svg>
<figcaption><span>${days[0].day}</span><span>highest: ${number(most)}</span><span>${days.at(-1).day}</span></figcaption>
</figure>`;
}

const page = (title, content) => html`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${title}</title>
<style>
	:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
	body { max-width: 60rem; margin: 0 auto; padding: 1rem }
	figure { margin: 1rem 0 }
	svg { display: block; width: 100%; height: 8rem; fill: #37c; border-bottom: 1px solid #888 }
	figcaption { display: flex; justify-content: space-between; font-size: .875rem }
	.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 0 2rem }
	table { width: 100%; border-collapse: collapse; table-layout: fixed }
	th, td { text-align: left; padding: .3rem 0; border-bottom: 1px solid #8884; vertical-align: top }
	pre { max-height: 9rem; overflow: auto }
	td { overflow: hidden }
	td, pre { overflow-wrap: anywhere; white-space: pre-wrap }
	th:last-child, td:last-child { text-align: right; width: 7rem; font-variant-numeric: tabular-nums }
	a { color: inherit }
</style>
${content}
</html>
`.text;

// overview is the page with the hits of each day, and with the total and the most-hit
// keys of each period.
export const overview = (days, periods) => page('Hits', html`<h1>Hits</h1>
${plot(days)}
<div class="columns">${periods.map(({ length, total, keys }) => html`<section>
<h2>Last ${length} days</h2>
<table>
<tr><th>Key<th>Hits
<tr><td>All keys<td>${number(total)}
${keys.map(({ id, key, count }) => html`<tr><td><a href="/keys/${id}"><bdi>${short(key)}</bdi></a><td>${number(count)}
`)}</table>
</section>`)}</div>`);

// single is the page of one key.
export const single = (key, days, periods) => page(`Hits of ${short(key)}`, html`<p><a href="/">All hits</a></p>
<h1>Hits of a key</h1>
<pre><bdi>${visible(key)}</bdi></pre>
${plot(days)}
<table>
${periods.map(({ length, total }) => html`<tr><td>Last ${length} days<td>${number(total)}
`)}</table>`);
