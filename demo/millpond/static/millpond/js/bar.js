// The bar may have more applications than a phone has room for: the one that is open is in sight.

const current = document.querySelector(".bar-nav [aria-current]");
if (current) {
  const nav = current.closest(".bar-nav");
  const { left, width } = current.getBoundingClientRect();
  nav.scrollLeft += left + width / 2 - nav.getBoundingClientRect().left - nav.clientWidth / 2;
}
