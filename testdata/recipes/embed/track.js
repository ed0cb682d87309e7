const pixel = "https://pixels.example.com/pixel.gif";

// A request without a key counts nothing. It opens the connection that events use.
new Image().src = pixel;

// track counts a hit. A page loads the image of an address only once, so a random
// number makes each address a new one.
function track(key) {
  new Image().src = pixel + "?key=" + encodeURIComponent(key) + "&" + Math.random();
}

// trackLeaving counts a hit while the page is being left. A browser may cancel the
// request of an image then, but not that of a beacon.
function trackLeaving(key) {
  navigator.sendBeacon(pixel + "?key=" + encodeURIComponent(key));
}
