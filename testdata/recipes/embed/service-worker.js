// Answers images from a cache, but for the pixel: each hit has to reach the daemon.
addEventListener("fetch", (event) => {
  if (event.request.url.startsWith("https://pixels.example.com/")) return;
  if (event.request.destination === "image") event.respondWith(fromCache(event.request));
});

async function fromCache(request) {
  const images = await caches.open("images");
  const cached = await images.match(request);
  if (cached) return cached;
  const fetched = await fetch(request);
  await images.put(request, fetched.clone());
  return fetched;
}
