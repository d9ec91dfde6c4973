//! Without a crypto provider the client is an error, not a panic. Its own process: providers are installed for good.

use ichor_dicomweb::{StowClient, StowError, StowOptions};

#[test]
fn the_missing_provider_is_named() {
    let error = StowClient::new(StowOptions::new("https://pacs.example/dicom-web")).unwrap_err();
    assert!(matches!(error, StowError::NoCryptoProvider) && error.is_permanent());
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let mut options = StowOptions::new("https://pacs.example/dicom-web");
    options.root_certificates = Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec());
    let error = StowClient::new(options).unwrap_err();
    assert!(matches!(error, StowError::Client(_)) && error.is_permanent(), "{error}");
    assert!(StowClient::new(StowOptions::new("http://pacs.example/dicom-web")).is_ok());
}
