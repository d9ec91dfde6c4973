//! A peer that sends what it is told to, right or wrong.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use dicom_ul::Pdu;
use dicom_ul::association::read_pdu_from_wire_async;
use dicom_ul::pdu::{
    AbortRQServiceProviderReason, AbortRQSource, AssociationAC, AssociationRJ, AssociationRQ, PDataValue,
    PDataValueType, PresentationContextProposed, UserVariableItem, write_pdu,
};
use ichor_dimse::command::{CommandSet, tag};
use ichor_dimse::status::StoreStatus;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{CT, EXPLICIT, PATIENCE, uid};

pub struct Peer {
    pub stream: TcpStream,
    read: BytesMut,
}

/// An association request as real ones are.
pub fn request(calling: &str, contexts: &[(u8, &str, &[&str])]) -> AssociationRQ {
    AssociationRQ {
        protocol_version: 1,
        calling_ae_title: calling.to_owned(),
        called_ae_title: "ICHOR".to_owned(),
        application_context_name: "1.2.840.10008.3.1.1.1".to_owned(),
        presentation_contexts: contexts
            .iter()
            .map(|(id, class, syntaxes)| PresentationContextProposed {
                id: *id,
                abstract_syntax: (*class).to_owned(),
                transfer_syntaxes: syntaxes.iter().map(|s| (*s).to_owned()).collect(),
            })
            .collect(),
        user_variables: vec![
            UserVariableItem::MaxLength(16_384),
            UserVariableItem::ImplementationClassUID("1.2.3.4".to_owned()),
            UserVariableItem::ImplementationVersionName("PEER_1".to_owned()),
        ],
    }
}

impl Peer {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_from("127.0.0.1", address).await
    }

    pub async fn connect_from(source: &str, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
        let stream = socket.connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: BytesMut::new() }
    }

    /// Takes a connection that was made by the other side.
    pub fn accepted(stream: TcpStream) -> Self {
        Self { stream, read: BytesMut::new() }
    }

    /// Connects and gets an association for CT in Explicit VR Little Endian on context 1.
    pub async fn associate(address: SocketAddr) -> Self {
        let mut peer = Self::connect(address).await;
        let answer = peer.ask(request("PEER", &[(1, CT, &[EXPLICIT])])).await;
        assert!(answer.is_ok(), "{answer:?}");
        peer
    }

    pub async fn ask(&mut self, request: AssociationRQ) -> Result<AssociationAC, AssociationRJ> {
        self.send(&request.into()).await;
        match self.receive().await {
            Some(Pdu::AssociationAC(accepted)) => Ok(accepted),
            Some(Pdu::AssociationRJ(rejected)) => Err(rejected),
            other => panic!("neither accepted nor rejected: {other:?}"),
        }
    }

    pub async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub async fn send(&mut self, pdu: &Pdu) {
        let mut bytes = Vec::new();
        write_pdu(&mut bytes, pdu).unwrap();
        self.send_raw(&bytes).await;
    }

    /// The next PDU; `None` if the connection was closed.
    pub async fn receive(&mut self) -> Option<Pdu> {
        let received = read_pdu_from_wire_async(&mut self.stream, &mut self.read, 131_072, true);
        tokio::time::timeout(PATIENCE, received).await.expect("an answer in time").ok()
    }

    /// Whether the connection ends without another byte within the time.
    pub async fn ends(&mut self) -> bool {
        let mut byte = [0; 1];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut byte)).await.expect("an end in time");
        matches!(read, Ok(0) | Err(_))
    }

    pub async fn send_command(&mut self, context: u8, command: &CommandSet) {
        self.send(&Pdu::PData { data: vec![pdv(context, PDataValueType::Command, &command.encode(), true)] }).await;
    }

    pub async fn send_data(&mut self, context: u8, bytes: &[u8], is_last: bool) {
        self.send(&Pdu::PData { data: vec![pdv(context, PDataValueType::Data, bytes, is_last)] }).await;
    }

    /// The response to the last request, with its status.
    pub async fn response(&mut self) -> (CommandSet, StoreStatus) {
        let pdu = self.receive().await;
        let Some(Pdu::PData { data }) = pdu else { panic!("no response: {pdu:?}") };
        assert_eq!((data.len(), data[0].is_last, &data[0].value_type), (1, true, &PDataValueType::Command));
        let command = CommandSet::decode(&data[0].data).unwrap();
        let status = StoreStatus::from_code(command.u16(tag::STATUS).unwrap());
        (command, status)
    }

    /// Stores an instance on context 1 in fragments of 8,000 bytes.
    pub async fn store(&mut self, message_id: u16, instance: &str, bytes: &[u8]) -> (CommandSet, StoreStatus) {
        self.send_command(1, &store_request(message_id, instance)).await;
        let mut chunks = bytes.chunks(8_000).peekable();
        while let Some(chunk) = chunks.next() {
            self.send_data(1, chunk, chunks.peek().is_none()).await;
        }
        self.response().await
    }

    pub async fn release(mut self) {
        self.send(&Pdu::ReleaseRQ).await;
        assert_eq!(self.receive().await, Some(Pdu::ReleaseRP));
    }

    pub async fn pause(&self, milliseconds: u64) {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }
}

pub fn store_request(message_id: u16, instance: &str) -> CommandSet {
    CommandSet::c_store_request(message_id, &uid(CT), &uid(instance))
}

pub fn pdv(context: u8, value_type: PDataValueType, data: &[u8], is_last: bool) -> PDataValue {
    PDataValue { presentation_context_id: context, value_type, is_last, data: data.to_vec() }
}

/// The reason of an A-ABORT by the service provider, which must be what came.
#[track_caller]
pub fn aborted(pdu: Option<Pdu>) -> Option<AbortRQServiceProviderReason> {
    match pdu {
        Some(Pdu::AbortRQ { source: AbortRQSource::ServiceProvider(reason) }) => Some(reason),
        other => panic!("not aborted: {other:?}"),
    }
}

pub fn encode(pdu: &Pdu) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_pdu(&mut bytes, pdu).unwrap();
    bytes
}
