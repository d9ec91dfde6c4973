// A viewer as applications build it: cornerstone3D shows a series from DICOMweb as a stack, and the Segmentation over it
// as the adapter (dcmjs) reads it. Nothing here knows where a mask should be.

import { adaptersSEG } from '@cornerstonejs/adapters';
import * as core from '@cornerstonejs/core';
import { init as initLoader, wadors } from '@cornerstonejs/dicom-image-loader';
import * as tools from '@cornerstonejs/tools';
import { api } from 'dicomweb-client';

const VIEWPORT = 'viewport';
const SEGMENTATION = 'segmentation';
// Hounsfield units from black to white.
const WINDOW = { lower: -20, upper: 100 };
// Colour of every segment; the CT is grey.
const COLOUR = [255, 0, 0, 255];
const OPACITY = 0.5;

const client = new api.DICOMwebClient({ url: `${location.origin}/dicom-web` });
let viewport;
let imageIds = [];

const value = (instance, tag) => instance[tag]?.Value?.[0];

// Image IDs of a series, in the order of the table's positions; each frame is an image.
async function seriesOf(study, modality) {
  const found = await client.searchForSeries({ studyInstanceUID: study, queryParams: { Modality: modality } });
  if (found.length !== 1) throw new Error(`${found.length} series of modality ${modality}`);
  const series = value(found[0], '0020000E');
  const instances = await client.retrieveSeriesMetadata({ studyInstanceUID: study, seriesInstanceUID: series });
  return { series, instances };
}

// Loads a study: the CT series, and the Segmentation over it.
async function load(study) {
  await core.init({ rendering: { preferSizeOverAccuracy: false } });
  await tools.init();
  initLoader({ maxWebWorkers: 1 });

  const ct = await seriesOf(study, 'CT');
  const images = [];
  for (const instance of ct.instances) {
    const uid = value(instance, '00080018');
    const frames = value(instance, '00280008') ?? 1;
    for (let frame = 1; frame <= frames; frame++) {
      const path = `studies/${study}/series/${ct.series}/instances/${uid}/frames/${frame}`;
      const imageId = `wadors:${location.origin}/dicom-web/${path}`;
      wadors.metaDataManager.add(imageId, instance);
      images.push({ imageId, uid, frame });
    }
  }
  const place = ({ imageId }) => core.metaData.get('imagePlaneModule', imageId).imagePositionPatient[2];
  images.sort((a, b) => place(a) - place(b));
  imageIds = images.map((image) => image.imageId);

  const seg = await seriesOf(study, 'SEG');
  if (seg.instances.length !== 1) throw new Error(`${seg.instances.length} Segmentations`);
  const buffer = await client.retrieveInstance({
    studyInstanceUID: study,
    seriesInstanceUID: seg.series,
    sopInstanceUID: value(seg.instances[0], '00080018'),
  });

  const engine = new core.RenderingEngine('engine');
  const element = document.getElementById(VIEWPORT);
  engine.enableElement({ viewportId: VIEWPORT, type: core.Enums.ViewportType.STACK, element });
  viewport = engine.getViewport(VIEWPORT);
  await viewport.setStack(imageIds, 0);
  // The adapter asks for the headers of images, which are there once these are loaded.
  for (const imageId of imageIds) await core.imageLoader.loadAndCacheImage(imageId);

  const { labelMapImages } = await adaptersSEG.Cornerstone3D.Segmentation.createFromDICOMSegBuffer(imageIds, buffer, {
    metadataProvider: core.metaData,
  });
  const layers = labelMapImages.flat();
  tools.segmentation.addSegmentations([
    {
      segmentationId: SEGMENTATION,
      representation: {
        type: tools.Enums.SegmentationRepresentations.Labelmap,
        data: { imageIds: layers.map((image) => image.imageId) },
      },
    },
  ]);
  const segments = new Set();
  for (const image of layers) for (const label of image.getPixelData()) segments.add(label);
  segments.delete(0);
  await tools.segmentation.addLabelmapRepresentationToViewport(VIEWPORT, [{ segmentationId: SEGMENTATION }]);
  for (const segment of segments) {
    tools.segmentation.config.color.setSegmentIndexColor(VIEWPORT, SEGMENTATION, segment, COLOUR);
  }
  tools.segmentation.config.style.setStyle(
    { type: tools.Enums.SegmentationRepresentations.Labelmap },
    { renderOutline: false, renderFill: true, fillAlpha: OPACITY, fillAlphaInactive: OPACITY },
  );
  return { segments: segments.size, images: images.map(({ uid, frame }) => ({ uid, frame })) };
}

function rendered(element, change) {
  return new Promise((resolve) => {
    element.addEventListener(core.Enums.Events.IMAGE_RENDERED, () => requestAnimationFrame(resolve), { once: true });
    change();
  });
}

// Shows one slice, and says where the viewer has the centres of three of its pixels on the page: of the first, of the
// next in its row, and of the next in its column.
async function show(index) {
  const element = document.getElementById(VIEWPORT);
  await viewport.setImageIdIndex(index);
  viewport.setProperties({ voiRange: WINDOW, interpolationType: core.Enums.InterpolationType.NEAREST });
  tools.segmentation.triggerSegmentationEvents.triggerSegmentationRepresentationModified(VIEWPORT, SEGMENTATION);
  for (let pass = 0; pass < 3; pass++) await rendered(element, () => viewport.render());
  const plane = core.metaData.get('imagePlaneModule', imageIds[index]);
  const { imagePositionPatient: origin, rowCosines, columnCosines, rowPixelSpacing, columnPixelSpacing } = plane;
  const along = (axis, step) => Array.from(origin, (x, i) => x + axis[i] * step);
  const points = [Array.from(origin), along(rowCosines, columnPixelSpacing), along(columnCosines, rowPixelSpacing)];
  return { points: points.map((point) => Array.from(viewport.worldToCanvas(point))), window: WINDOW };
}

window.judge = { load, show };
