// Ties view3d.js to the page: gradio runs both together, with the names element, props and watch.
let shown = null;
async function show() {
  const canvas = element.querySelector("canvas");
  if (shown === null || shown.canvas !== canvas) shown = {canvas, view: multihmrView(canvas)};
  if (!shown.view) { canvas.replaceWith("This browser shows no 3D; the GLB below opens elsewhere."); return; }
  const answer = props.value ? await fetch(`gradio_api/file=${props.value.split("/").map(encodeURIComponent).join("/")}`) : null;
  shown.view.show(answer && answer.ok ? await answer.arrayBuffer() : null);
  canvas.dataset.shown = props.value;
}
watch("value", show);
if (props.value) show();
