// Counts a view of the page. The key is the page's own address, without query and
// fragment, unless the script's element has another one in data-key. A browser may
// prerender a page that nobody opens: the view is counted when somebody sees the page.
{
  const { key = location.origin + location.pathname } = document.currentScript.dataset;
  const count = () => { new Image().src = "https://pixels.example.com/pixel.gif?key=" + encodeURIComponent(key); };
  if (document.prerendering) document.addEventListener("prerenderingchange", count, { once: true });
  else count();
}
