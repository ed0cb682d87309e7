const pixel = "https://pixels.example.com/pixel.gif";

// A request without a key counts nothing. It opens the connection that events use.
new Image().src = pixel;

// address returns the address that counts a hit of key. encodeURIComponent throws for
// text that was cut inside an emoji, so the half emoji becomes U+FFFD first. Browsers
// from before 2023 lack toWellFormed.
function address(key) {
  const text = String(key);
  const whole = text.toWellFormed ? text.toWellFormed() : text.replace(/[\ud800-\udfff]/gu, "\ufffd");
  return pixel + "?key=" + encodeURIComponent(whole);
}

// track counts a hit. A page loads the image of an address only once, so a random
// number makes each address a new one.
function track(key) {
  new Image().src = address(key) + "&" + Math.random();
}

// trackLeaving counts a hit while the page is being left. A browser may cancel the
// request of an image then, but not that of a beacon. Some browsers have no beacons,
// or refuse one: then the image is better than nothing.
function trackLeaving(key) {
  if (!navigator.sendBeacon || !navigator.sendBeacon(address(key))) track(key);
}

// A click on an element with data-track counts a hit, with a modifier key too. The
// middle button, which opens a link in a new tab, makes an auxclick instead.
function trackClick(event) {
  const clicked = event.button < 2 && event.target.closest("[data-track]");
  if (clicked) trackLeaving(clicked.dataset.track);
}
addEventListener("click", trackClick, true);
addEventListener("auxclick", trackClick, true);
