-- A CT series that has come whole goes to ichor. What ichor sends back is no CT, and stays here.
function OnStableSeries(seriesId, tags, metadata)
  if tags['Modality'] == 'CT' then
    RestApiPost('/modalities/ichor/store',
      DumpJson({ Resources = { seriesId }, Asynchronous = true }, true))
  end
end
