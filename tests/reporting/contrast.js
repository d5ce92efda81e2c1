// Texts of the page's charts that stand out too little from what is painted behind them: [text, contrast ratio] each.
// (axe-core does not decide this within an SVG.)
(least => {
  const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = colour => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data].map(part => part / 255);
  };
  const over = ([r, g, b, a], ground) => [r, g, b].map((part, i) => part * a + ground[i] * (1 - a));
  const paint = element => {
    const style = getComputedStyle(element), shape = element instanceof SVGGeometryElement || element instanceof SVGTextElement;
    const [r, g, b, a] = rgba(shape ? style.fill.replace("none", "transparent") : style.backgroundColor);
    return [r, g, b, a * style.opacity * (shape ? style.fillOpacity : 1)];
  };
  const luminance = colour => colour.map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = text => {
    text.scrollIntoView({block: "center", inline: "center", behavior: "instant"});
    const box = text.getBoundingClientRect();
    const behind = document.elementsFromPoint(box.x + box.width / 2, box.y + box.height / 2);
    const ground = behind.filter(element => !element.closest("text")).reverse()
      .reduce((below, element) => over(paint(element), below), [1, 1, 1]);
    const [light, dark] = [luminance(over(paint(text), ground)), luminance(ground)].sort((a, b) => b - a);
    return behind.length ? (light + 0.05) / (dark + 0.05) : 0;
  };
  document.querySelectorAll("details").forEach(each => each.open = true);
  const texts = [...document.querySelectorAll("svg text")].filter(text => text.getBoundingClientRect().width);
  const ratios = texts.map(text => [text.textContent.trim(), ratio(text)]);
  return {seen: ratios.length, faint: ratios.filter(([, r]) => r < least)};
})
